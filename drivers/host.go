package drivers

import (
	"net/netip"
	"strings"
)

// NoHost reports whether a host can be none: of digits and dots alone, as an IPv4 address, it is not one ("192.168.1.300",
// "192.168.1"). A name has a letter in it (RFC 1123, section 2.1).
func NoHost(host string) bool {
	if host == "" || strings.Trim(host, "0123456789.") != "" {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err != nil
}

// HostMend is what to do about a host that can be none.
const HostMend = "write an IPv4 address, which has four numbers from 0 to 255, such as 192.168.1.10, or a name"
