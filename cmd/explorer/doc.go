// Command explorer is a master of a compute grid: the server, and the tools to
// ask one and to administer it.
//
//	explorer                      serve, with everything at its default
//	explorer status               what the master of this machine knows
//	explorer nodes watch          its nodes, as they change
//	explorer nodes drain NODE
//	explorer diff MASTER          how another master's records differ
//	explorer backup FILE          all records; explorer restore FILE merges them
//	explorer help
//
// Results go to stdout, as tables or with --json as JSON. Errors and the log go
// to stderr. The exit code is 0, 1 where something failed or diff found a
// difference, or 2 where the command was used wrongly, configuration included.
//
// Every value of the server is a flag, an environment variable or a key of the
// config file, in this order; explorer.example.yaml explains them.
package main
