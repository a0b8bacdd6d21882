package command

import (
	"context"
	"fmt"
	"strings"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// maxArguments is how many arguments a call may have.
const maxArguments = 64

// Range is what an argument of a method may be.
type Range struct {
	Min, Max float64
	Given    bool // else it is no number
}

// Call decides over a request and, if it is allowed, calls the method and waits for the device's answer, 10 s at most. It returns what the
// method gave. The error says why nothing was called, or that it is not known whether it was. Each call leaves one line in the log.
func (r *Router) Call(ctx context.Context, q Request) (results []drivers.Result, err error) {
	q.Tag, q.Value = "", ""
	err = r.do(ctx, &q, func(ctx context.Context, t *target) (err error) {
		results, err = t.call(ctx, q.Arguments)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// bounded refuses arguments that no method takes, without asking a device.
func bounded(texts []string) error {
	if len(texts) > maxArguments {
		return fmt.Errorf("%w: there are %d arguments; give %d at most", ErrValue, len(texts), maxArguments)
	}
	for i, text := range texts {
		if len(text) > longest {
			return fmt.Errorf("argument %d: %w: it has %d bytes; use %d at most", i+1, ErrValue, len(text), longest)
		}
	}
	return nil
}

// call has the poller call between two polls. Only the device knows what the method takes.
func (t *target) call(ctx context.Context, texts []string) (results []drivers.Result, err error) {
	begun := false // Do returns only when the job is over, or will not begin
	err = t.Do(ctx, func(d drivers.Driver) error {
		c, ok := d.(drivers.Caller)
		if !ok {
			return ErrNoCaller
		}
		var err error
		results, err = c.Call(ctx, t.Method, func(takes []drivers.Argument) ([]telemetry.Value, error) {
			args, err := t.Rule.arguments(takes, texts)
			begun = err == nil
			return args, err
		})
		return err
	})
	return results, outcome(err, begun, "nothing was called", "it is not known whether it was called: see what the machine does")
}

// arguments returns texts as the values of what a method takes, each within its range.
func (r *Rule) arguments(takes []drivers.Argument, texts []string) ([]telemetry.Value, error) {
	switch {
	case len(texts) != len(takes):
		return nil, fmt.Errorf("%w: the method takes %s; %d given", ErrValue, listed(takes), len(texts))
	case len(r.Arguments) > len(takes):
		return nil, fmt.Errorf("%w: the rule has %d arguments, and the method takes %s: is it the method that the rule is for?", ErrNotAllowed, len(r.Arguments), listed(takes))
	}
	values := make([]telemetry.Value, len(takes))
	for i := range takes {
		var may Range
		if i < len(r.Arguments) {
			may = r.Arguments[i]
		}
		var err error
		if values[i], err = may.value(texts[i], &takes[i]); err != nil {
			return nil, fmt.Errorf("argument %q: %w", clip(takes[i].Name), err)
		}
	}
	return values, nil
}

// value returns a text as the value of an argument.
func (g Range) value(text string, a *drivers.Argument) (telemetry.Value, error) {
	kind := a.Type.Kind()
	plain := kind == telemetry.KindBool || kind == telemetry.KindString
	switch {
	case !a.Type.Known(), kind == telemetry.KindTime, kind == telemetry.KindArray:
		return telemetry.Value{}, fmt.Errorf("%w: it takes what a command cannot give: numbers, texts, bools and arrays of them only", ErrValue)
	case !plain && !g.Given: // also of an array of none
		return telemetry.Value{}, fmt.Errorf("%w: a number needs min and max in the rule's arguments", ErrNotAllowed)
	case plain && g.Given:
		return telemetry.Value{}, fmt.Errorf("%w: the rule has min and max, and it takes a %s: is the rule in the method's order?", ErrNotAllowed, a.Type)
	}
	one := target{Target: Target{Rule: Rule{Min: g.Min, Max: g.Max, Ranged: g.Given}}}
	return one.raw(text, a.Type, a.Array)
}

// listed says what a method takes. The names are the device's, so they are cut.
func listed(takes []drivers.Argument) string {
	if len(takes) == 0 {
		return "no arguments"
	}
	var words []string
	for _, a := range takes {
		word := fmt.Sprintf("%q %s", clip(a.Name), a.Type)
		if a.Array {
			word += "[]"
		}
		if words = append(words, word); len(words) == 16 && len(takes) > 16 {
			words = append(words, "…")
			break
		}
	}
	return strings.Join(words, ", ")
}
