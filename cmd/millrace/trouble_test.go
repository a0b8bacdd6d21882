package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/drivers/drivertest"
	"millrace/drivers/modbus/modbussim"
	"millrace/gateway/web"
)

func simulated(t *testing.T) *modbussim.Server {
	t.Helper()
	s, err := modbussim.Start(modbussim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Unit(1)
	return s
}

// TestContestedIsTold: a gateway whose device is called for by two modems says so once, with both addresses.
func TestContestedIsTold(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", drivertest.FreePort(t))
	first, second, l := simulated(t), simulated(t), newLesson(t)
	l.write("tcp-listen://"+address, 1, "registration: gw-1")
	go func() { // as soon as somebody listens
		for first.Call(address, []byte("gw-1")) != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	l.start()
	l.good(func() bool { return first.Requests() > 1 }) // its call has been taken
	l.good(func() bool {
		if second.Connections() == 0 {
			_ = second.Call(address, []byte("gw-1"))
		}
		return strings.Contains(l.log.String(), `device \"press-1\": contested since`)
	})
	want := fmt.Sprintf(`two callers of %q register as "gw-1": 127.0.0.1:`, address)
	if log := l.log.String(); !strings.Contains(strings.ReplaceAll(log, `\"`, `"`), want) || strings.Count(log, "contested since") != 1 {
		t.Errorf("want %q in\n%s", want, log)
	}
	if second.Requests() > 0 {
		t.Errorf("the second caller was asked %d times", second.Requests())
	}
}

// TestSparePathIsTold: check says when the spare path is taken, and the gateway as long as it is in use that it is.
func TestSparePathIsTold(t *testing.T) {
	first, second, l := simulated(t), simulated(t), newLesson(t)
	l.write("["+first.URL()+", "+second.URL()+"]", 1)
	mustSay(t, []string{"  spare path " + second.URL() + ": taken when the path in use cannot be connected to, or is silent for three requests in a row (30s)\n"}, "check", "--config", l.file)
	l.start()
	first.Down()
	l.good(func() bool { return strings.Contains(l.log.String(), `device \"press-1\": on spare path since`) })
	if want := "the line is reached over " + second.URL() + ", because " + first.URL() + " failed: "; !strings.Contains(l.log.String(), want) {
		t.Errorf("want %q in\n%s", want, l.log)
	}
	if err := first.Up(); err != nil {
		t.Fatal(err)
	}
	second.Down()
	c, err := web.Dial(t.Context(), l.data)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.good(func() bool {
		s, err := c.Snapshot(t.Context())
		return err == nil && s.Devices[0].Path == first.URL() && s.Devices[0].State != web.StateOnSpare
	})
}
