package client

// Headers that a master gives a call which it passes to a node.
const (
	// HeaderOperation names the operation that a call is. net/http repeats a request that
	// has it, spelled so, by itself; a sender spells it in lower case.
	HeaderOperation = "Idempotency-Key"
	// HeaderAgain says that the operation was asked for before.
	HeaderAgain = "Hero-Op-Again"
	// HeaderNode is the id of the node that a call is for. On several machines agents
	// have sockets of one name, and a master may take one of them for another.
	HeaderNode = "Hero-Node"
)
