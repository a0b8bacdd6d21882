package opcua

import (
	"errors"
	"fmt"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// refusal is the status with which a server refuses a write or a call of a method.
type refusal ua.StatusCode

// Error says the status by its name and, for the common ones, what to do.
func (e refusal) Error() string {
	text := statusText(ua.StatusCode(e))
	if mend := mends[ua.StatusCode(e)&0xFFFF0000]; mend != "" {
		text += "; " + mend
	}
	return text
}

const unproven = "it checks our signature against another nonce than it has told, or another certificate than it was given: restart the server, and look for a proxy in between"

// sessionMends say what a person can do about a server that refuses a session.
var sessionMends = map[ua.StatusCode]string{
	ua.StatusBadTooManySessions:       "other clients, or a running gateway beside this one, have all that the server allows: stop one, or raise the limit in the server",
	ua.StatusBadUserAccessDenied:      "see username and password, and whether the server lets this user in",
	ua.StatusBadIdentityTokenInvalid:  "see username and password, and whether the server lets this user in",
	ua.StatusBadIdentityTokenRejected: "see username and password, and whether the server lets this user in",

	ua.StatusBadApplicationSignatureInvalid: unproven,
}

// advised adds what to do to the error of a session that the server refuses.
func advised(err error) error {
	var code statusError
	if !errors.As(err, &code) || sessionMends[ua.StatusCode(code)] == "" {
		return err
	}
	return fmt.Errorf("%w; %s", err, sessionMends[ua.StatusCode(code)])
}

// allowDiscovery is what to do about a server that tells nothing without security. Its certificate is needed to open a secured channel, and nothing but GetEndpoints tells it, which
// servers must answer without (OPC 10000-4, 5.4.4).
const allowDiscovery = "the server takes secured connections only, and tells nobody its endpoints and certificate without one: allow discovery without security in it (an endpoint, or a switch, of its security settings; sessions stay secured)"

// undisclosed adds what to do to the error of a server that refuses, on a channel without security, to tell what it offers, or that channel.
func undisclosed(err error) error {
	var service statusError
	var opening unopenedError
	var ended *wire.EndedError
	code := ua.StatusOK
	switch {
	case errors.As(err, &service):
		code = ua.StatusCode(service)
	case errors.As(err, &opening):
		code = opening.code
	case errors.As(err, &ended):
		code = ua.StatusCode(ended.Status)
	}
	switch code & 0xFFFF0000 {
	case ua.StatusBadSecurityPolicyRejected, ua.StatusBadSecurityModeRejected, ua.StatusBadSecurityModeInsufficient, ua.StatusBadSecurityChecksFailed:
		return fmt.Errorf("%w; %s", err, allowDiscovery)
	}
	return err
}

// unsure reports whether it may have been done all the same: the server's status is of the class Uncertain, or says nothing of that.
func (e refusal) unsure() bool {
	if ua.StatusCode(e)>>30 == 1 {
		return true
	}
	switch ua.StatusCode(e) & 0xFFFF0000 {
	case ua.StatusBadTimeout, ua.StatusBadRequestTimeout, ua.StatusBadUnexpectedError, ua.StatusBadInternalError, ua.StatusBadShutdown:
		return true
	}
	return false
}

const login = "log in as a user who may, with username and password or user_certificate, or have the server give this one the right"

// mends say what a person can do about a refusal.
var mends = map[ua.StatusCode]string{
	ua.StatusBadNotWritable:              "the server has it read only: choose another node, or make it writable there",
	ua.StatusBadUserAccessDenied:         login,
	ua.StatusBadIdentityTokenRejected:    login,
	ua.StatusBadTypeMismatch:             "the node takes another type than it says it has; write the right one as type at the tag",
	ua.StatusBadOutOfRange:               "the server's own range is narrower: see the limits of the node, or of the method's arguments",
	ua.StatusBadWriteNotSupported:        "the server cannot write this node's value by itself",
	ua.StatusBadNodeIDUnknown:            "see the spelling (case counts) and the namespace: millrace opcua browse shows what there is",
	ua.StatusBadNodeIDInvalid:            "see the spelling and the namespace: millrace opcua browse shows what there is",
	ua.StatusBadAttributeIDInvalid:       "the node is no variable and has no value: millrace opcua browse shows what is below it",
	ua.StatusBadSecurityModeInsufficient: "the server wants an encrypted connection for it: write security_mode: sign-and-encrypt",
	ua.StatusBadNoCommunication:          "the server runs, but its own link to the machine does not",
	ua.StatusBadNotConnected:             "the server runs, but its own link to the machine does not",
	ua.StatusBadDeviceFailure:            "the machine behind the server has a fault: see its own messages",
	ua.StatusBadLocked:                   "another client has locked it: try again when it is done",
	ua.StatusBadServiceUnsupported:       "the server does not have this service",
	ua.StatusBadMethodInvalid:            "the object has no such method: millrace opcua browse shows what is below it",
	ua.StatusBadNotExecutable:            "the server does not let it be called now",
	ua.StatusBadArgumentsMissing:         "give the arguments that the method takes",
	ua.StatusBadTooManyArguments:         "give the arguments that the method takes",
	ua.StatusBadInvalidArgument:          "see the arguments that the method takes",
	ua.StatusBadInvalidState:             "the machine is not in a state in which it takes this",
}
