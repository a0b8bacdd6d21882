package modbustool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/telemetry"
	"millrace/gateway/web"
)

// lineFlags say how to reach a device.
type lineFlags struct {
	unit         uint8
	timeout      time.Duration
	options      []string
	config, path string
	chosen       bool // --config was given
}

// unitValue is a flag that says in words what it takes.
type unitValue uint8

func (u *unitValue) String() string { return strconv.Itoa(int(*u)) }
func (u *unitValue) Type() string   { return "uint8" }

// Set reads a unit id.
func (u *unitValue) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 255 {
		return errors.New("a unit id is a number from 0 to 255")
	}
	*u = unitValue(n)
	return nil
}

func (f *lineFlags) register(cmd *cobra.Command) {
	f.unit = 1
	cmd.Flags().Var((*unitValue)(&f.unit), "unit", "unit id, 0 to 255")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 2*time.Second, "of one request, 10ms to 1m")
	cmd.Flags().StringArrayVar(&f.options, "option", nil, "device option of a config, as `NAME=VALUE`; may be repeated")
	cmd.Flags().StringVarP(&f.config, "config", "c", "millrace.yaml", "config file; where its gateway runs and owns the line, it is asked")
	cmd.Flags().StringVar(&f.path, "path", "", "directory of the gateway's store, instead of a config")
}

// line is a line with Modbus devices: the running gateway's where it owns it, else a connection of our own.
type line struct {
	url    string
	owner  *web.Client // nil = no gateway runs, or it has no such line
	dir    string      // of the owner's store
	driver drivers.Driver
	up     bool
}

// open finds out whose line it is. It opens nothing yet.
func (f *lineFlags) open(ctx context.Context, cmd *cobra.Command, h Host, url string) (*line, error) {
	if f.timeout < 10*time.Millisecond || f.timeout > time.Minute {
		return nil, fmt.Errorf("timeout %v is out of range; use 10ms to 1m", f.timeout)
	}
	l := &line{url: url}
	var err error
	if l.driver, err = newDriver(url, f, nil); err != nil {
		return nil, err
	}
	f.chosen = cmd.Flags().Changed("config")
	if l.dir, err = f.store(h); err != nil || l.dir == "" {
		return l, err
	}
	client, err := web.Dial(ctx, l.dir)
	if errors.Is(err, web.ErrNoGateway) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	owned, err := client.Ask(ctx, "modbus", url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask whether the gateway owns the line: %w", err)
	}
	if owned.Line {
		l.owner = client
		return l, nil
	}
	return l, client.Close()
}

// store returns the directory of the store of the gateway that may own the line, "" for none.
func (f *lineFlags) store(h Host) (string, error) {
	if f.path != "" {
		return f.path, nil
	}
	if _, err := os.Stat(f.config); err != nil && !f.chosen {
		return "", nil
	}
	dir, err := h.StorePath(f.config)
	if dir != "" {
		return dir, nil // mistakes elsewhere in it are no concern here
	}
	return "", err
}

// newDriver makes a driver for one device on the line, with what tags it is to have.
func newDriver(url string, f *lineFlags, tags []telemetry.Tag) (drivers.Driver, error) {
	options := map[string]string{"unit": fmt.Sprint(f.unit)}
	for _, o := range f.options {
		name, value, ok := strings.Cut(o, "=")
		if !ok {
			return nil, fmt.Errorf("option %q: write it like accept_unit=any", o)
		}
		if name == "unit" {
			return nil, fmt.Errorf("option %q: say it with --unit", o)
		}
		if !known(name) {
			return nil, fmt.Errorf("option %q: a Modbus device has none of that name; `millrace drivers` lists them", name)
		}
		options[name] = value
	}
	d := drivers.Device{Name: "device", URL: url, Timeout: f.timeout, Options: options}
	if tags != nil {
		d.Groups = []drivers.Group{{Name: "tool", Interval: time.Second, Tags: tags}}
	}
	return modbus.Protocol().New(drivers.Connection{URL: url, Devices: []drivers.Device{d}})
}

func known(option string) bool {
	p := modbus.Protocol()
	return slices.ContainsFunc(slices.Concat(p.ConnectionOptions, p.DeviceOptions), func(o drivers.Option) bool { return o.Name == option })
}

// ask makes one request that reads. Its answer may be an exception, see refusal. An error that wraps drivers.ErrDevice says that
// this unit did not answer.
func (l *line) ask(ctx context.Context, unit byte, pdu ...byte) ([]byte, error) {
	request := append([]byte{unit}, pdu...)
	if l.owner != nil {
		asked, err := l.owner.Ask(ctx, "modbus", l.url, request)
		if err == nil && !asked.Line {
			err = errors.New("it does not own the line any more; try again")
		}
		if err != nil {
			return nil, fmt.Errorf("through the gateway that runs on %q: %w", l.dir, err)
		}
		if asked.Reason != "" {
			return nil, fmt.Errorf("%w: %s", drivers.ErrDevice, asked.Reason)
		}
		return whole(asked.Answer)
	}
	if err := l.connect(ctx); err != nil {
		return nil, err
	}
	answer, err := l.driver.(drivers.Asker).Ask(ctx, request)
	if errors.Is(err, drivers.ErrLink) {
		l.hangUp()
	}
	if err != nil {
		return nil, err
	}
	return whole(answer)
}

// whole refuses an answer that is none.
func whole(answer []byte) ([]byte, error) {
	if len(answer) < 2 {
		return nil, errors.New("the answer is empty; is the gateway of another version?")
	}
	return answer, nil
}

func (l *line) connect(ctx context.Context) error {
	if l.up {
		return nil
	}
	if err := l.driver.Connect(ctx); err != nil {
		return fmt.Errorf("connect to %s: %w", l.url, err)
	}
	l.up = true
	return nil
}

func (l *line) hangUp() {
	_ = l.driver.Close() // it failed, or is of no more use
	l.up = false
}

// close releases the line.
func (l *line) close() {
	l.hangUp()
	if l.owner != nil {
		_ = l.owner.Close()
	}
}

// through says whose line it is, for people.
func (l *line) through() string {
	if l.owner == nil {
		return ""
	}
	return fmt.Sprintf(", through the gateway that runs on %q", l.dir)
}
