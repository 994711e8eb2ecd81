package workeragent

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent/internal/ops"
)

// errorData is the data of the gateway's own errors.
type errorData struct {
	By          string `json:"by"` // "agent": not the node's compute service
	Retryable   bool   `json:"retryable"`
	Hint        string `json:"hint"`
	RetryAfterS int    `json:"retry_after_s,omitempty"`
}

func gatewayError(code int, message string, data errorData) *jsonrpc.Error {
	data.By = jsonrpc.ByAgent
	return &jsonrpc.Error{Code: code, Message: message, Data: data}
}

var errTooManyCalls = errors.New("too many calls to this node at once")

func tooManyCalls() *jsonrpc.Error {
	return gatewayError(jsonrpc.CodeLimit, errTooManyCalls.Error(),
		errorData{Retryable: true, RetryAfterS: 1, Hint: "nothing was done; try again in a moment"})
}

// callFailed is the error for a call that the compute service did not answer.
func callFailed(err error, idempotent bool) *jsonrpc.Error {
	if !client.OutcomeUnknown(err) {
		return gatewayError(jsonrpc.CodeCannotReach, "the compute service of the node cannot be reached",
			errorData{Retryable: true, Hint: "nothing was done; check the compute service: " + err.Error()})
	}
	hint := "it may have run; look at the VM before you repeat it"
	if idempotent {
		hint = "nothing was to be changed; try again"
	}
	return gatewayError(jsonrpc.CodeOutcomeUnknown, "the call was sent to the compute service and not answered",
		errorData{Retryable: idempotent, Hint: hint})
}

// operationFailed is the error for an operation that has no answer.
func operationFailed(err error) *jsonrpc.Error {
	var wait *ops.WaitError
	after := 0
	if errors.As(err, &wait) {
		after = int(math.Ceil(wait.After.Seconds()))
	}
	unknown := func(data errorData) *jsonrpc.Error {
		return gatewayError(jsonrpc.CodeOutcomeUnknown, "the answer of the operation is not known", data)
	}
	switch {
	case errors.Is(err, ops.ErrOtherCall):
		return jsonrpc.InvalidParams("op_id", "was used for another call; give every operation an id of its own")
	case errors.Is(err, ops.ErrUnknown):
		return unknown(errorData{Hint: "it was begun and may have run, and it will not run again; look at the VM, and use another op_id to do it anew"})
	case errors.Is(err, ops.ErrTooLarge):
		return unknown(errorData{Hint: "it was carried out, and its answer was too long to be kept for a repetition; look at the VM"})
	case errors.Is(err, ops.ErrUnsaved):
		return unknown(errorData{Retryable: true, Hint: "it was carried out, but the agent's disk does not take the answer; repeat it with the same op_id when the disk is well"})
	case errors.Is(err, ops.ErrDamaged):
		return unknown(errorData{Retryable: true, RetryAfterS: after, Hint: "the agent's memory of operations was damaged, so it may have run before; nothing was done now"})
	case errors.Is(err, ops.ErrFresh):
		return unknown(errorData{RetryAfterS: after, Hint: "the agent has only begun to remember operations, so it may have run before; nothing was done now; look at the VM"})
	case errors.Is(err, ops.ErrFull):
		return gatewayError(jsonrpc.CodeLimit, "the node cannot remember more operations", errorData{
			Retryable: true, RetryAfterS: after, Hint: "nothing was done; try again in " + strconv.Itoa(after) + " s",
		})
	case errors.Is(err, errTooManyCalls):
		return tooManyCalls()
	case errors.Is(err, ops.ErrDisk):
		return gatewayError(jsonrpc.CodeCannotReach, "the node cannot write operations down",
			errorData{Retryable: true, Hint: "nothing was done; check the disk of the agent's data directory: " + err.Error()})
	case errors.Is(err, ops.ErrClosed):
		return gatewayError(jsonrpc.CodeCannotReach, "the agent of the node stops",
			errorData{Retryable: true, Hint: "nothing was done; try again when it runs"})
	}
	return callFailed(err, false)
}

func respond(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a caller that is gone is no error here
}

func respondError(w http.ResponseWriter, status int, id []byte, e *jsonrpc.Error) {
	if id == nil { // a notification
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if data, ok := e.Data.(jsonrpc.ErrorData); ok {
		marked := *e
		data.By = jsonrpc.ByAgent
		marked.Data = data
		e = &marked
	}
	respond(w, status, jsonrpc.AppendError(nil, e, id))
}

// refuseStream answers what is no JSON-RPC request.
func refuseStream(w http.ResponseWriter, status int, problem, hint string) {
	body, err := json.Marshal(map[string]string{"error": problem, "hint": hint})
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	respond(w, status, body)
}

// streamFailed answers for a compute service that does not. As elsewhere, 503 says
// that nothing was sent.
func streamFailed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler)
	case client.OutcomeUnknown(err):
		refuseStream(w, http.StatusBadGateway, "the compute service of the node did not answer", err.Error())
	default:
		refuseStream(w, http.StatusServiceUnavailable, "the compute service of the node cannot be reached", err.Error())
	}
}
