package modbussim

// The functions by which a device says what it is (Modbus Application Protocol V1.1b3, 6.13 and 6.21).
const (
	reportServerID = 17
	encapsulated   = 43
	readDeviceID   = 14
)

// Identify lets the unit say what it is (function 43/14): vendor, product code and revision, together at most 200 bytes. Before,
// it knows no such function.
func (u *Unit) Identify(vendor, product, revision string) {
	u.name.Store(&[3]string{vendor, product, revision})
}

// identify returns the answer to a frame that asks what the unit is, nil when it does not or the unit does not say.
func (u *Unit) identify(frame []byte) []byte {
	if len(frame) != header+4 || frame[7] != encapsulated || frame[8] != readDeviceID || u == nil || u.name.Load() == nil {
		return nil
	}
	level, first := frame[9], frame[10]
	if level < 1 || level > 4 || level == 4 && first > 2 {
		return []byte{encapsulated | 0x80, 3}
	}
	pdu := []byte{encapsulated, readDeviceID, level, 0x81, 0, 0, 0} // conformity: basic, each object may be asked for alone
	for i, text := range u.name.Load() {
		if i >= int(first) && (level < 4 || i == int(first)) {
			pdu = append(append(pdu, byte(i), byte(len(text))), text...)
			pdu[6]++
		}
	}
	return pdu
}
