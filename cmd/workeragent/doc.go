// Command workeragent runs beside a compute node and reports it to the
// explorers of the grid. See package workeragent for what it does, and
// `workeragent --help` for its settings; workeragent.example.yaml explains them.
package main
