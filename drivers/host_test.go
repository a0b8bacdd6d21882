package drivers

import "testing"

// TestNoHost: what looks like an IPv4 address and is none can be no host; names and addresses can.
func TestNoHost(t *testing.T) {
	for host, want := range map[string]bool{
		"192.168.1.300": true, "192.168.1": true, "1.2.3.4.5": true, "192.168.1.010": true, "1234": true, "...": true, "10.0.0.1.": true,
		"192.168.1.30": false, "0.0.0.0": false, "": false, "h": false, "plc-300": false, "192.168.1.300.example": false, "3com": false, "::1": false, "fe80::1%eth0": false,
	} {
		if NoHost(host) != want {
			t.Errorf("NoHost(%q) is %v", host, !want)
		}
	}
}
