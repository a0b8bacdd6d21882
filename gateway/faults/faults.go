// Package faults holds the whole gateway to its promises from outside: it builds the real binary, gives it
// real devices, a real broker and real faults, and compares what the devices served with what arrived.
//
// It owns the instruments: [Device] (a Modbus device that numbers its answers), [Proxy] (a network that
// fails on demand), [Tap] (a recorder of what the gateway published and what the broker acknowledged),
// [Mosquitto], [Subscriber], [Gateway] (the process under test) and [Account] (the ledger checker). It
// imports no other package of ours: what it knows of the gateway is what a user knows, the config file,
// the messages and the exit codes. The scenarios are tests: `go test ./gateway/faults -run TestFault/F15`,
// and README.md beside this file says which there are and how to run the long set.
//
// # What counts as lost
//
// A device's answer is lost when its values are in no message that reached the cloud's side. The cloud's
// side is the recording subscriber as long as the broker lives. When the broker itself is killed, it may
// have acknowledged messages that it had not yet delivered: those are the broker's loss, so the scenarios
// that kill it take the tap's word instead: a message has arrived when the broker's PUBACK for it passed.
// The tap sits between the fault proxy and the broker, so that no injected fault can hide an
// acknowledgement from it.
package faults
