//go:build !unix

package opcuasim

// renews cannot look ahead here: a renewal may spoil a message that is sent meanwhile.
func (*secured) renews() bool { return false }
