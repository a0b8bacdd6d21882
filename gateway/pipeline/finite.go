package pipeline

import "millrace/drivers/telemetry"

// applyFinite makes readings bad whose value is no number, so that every consumer, the ledger's counts and all that shows states say the same
// of them: JSON has no such number, and none is a measurement. The value stays.
func applyFinite(readings []telemetry.Reading) {
	for i := range readings {
		if r := &readings[i]; r.Quality < telemetry.Bad && (r.Value.Kind == telemetry.KindFloat32 || r.Value.Kind == telemetry.KindFloat64) {
			if x, _ := r.Value.Float(); x-x != 0 {
				r.Quality, r.Reason = telemetry.Bad, notFinite(x)
			}
		}
	}
}

func notFinite(x float64) string {
	switch {
	case x > 0:
		return "+infinity"
	case x < 0:
		return "-infinity"
	}
	return "not a number"
}
