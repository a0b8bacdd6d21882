package modbustool

import (
	"slices"

	"millrace/drivers/modbus/modbussim"
)

// sunspecModel is a model that a template reads: its id and its length without id and length.
type sunspecModel struct {
	id, length uint16
}

// sunspecModels are those of the templates (sunspec/models).
var sunspecModels = map[string]sunspecModel{
	"sunspec-inverter-single": {101, 50}, "sunspec-inverter": {103, 50}, "sunspec-inverter-float": {113, 60}, "sunspec-meter": {203, 105}, "sunspec-meter-float": {213, 124},
}

// serveSunSpec lays the chain of models around a simulated one that begins at base: the mark, the common model of 66 or 65
// registers that fits before it, its own head and the end. A base that no device can have gets none.
func serveSunSpec(u *modbussim.Unit, template string, base int) {
	model, ok := sunspecModels[template]
	if !ok {
		return
	}
	for _, common := range []int{66, 65} {
		start := base - common - 4
		if !slices.Contains(sunspecBases, start) {
			continue
		}
		words := make([]uint16, common+4)
		text := func(at, length int, s string) {
			for i := range min(len(s), 2*length) {
				words[4+at+i/2] |= uint16(s[i]) << (8 * (1 - i%2))
			}
		}
		text(-4, 2, sunspecMark)
		words[2], words[3] = 1, uint16(common)
		text(0, 16, "millrace")
		text(16, 16, template)
		text(40, 8, "1")
		text(48, 16, "simulated")
		u.SetRegisters(modbussim.Holding, uint16(start), words...)
		u.SetRegisters(modbussim.Holding, uint16(base), model.id, model.length)
		u.SetRegisters(modbussim.Holding, uint16(base)+2+model.length, lastModel, 0)
		return
	}
}
