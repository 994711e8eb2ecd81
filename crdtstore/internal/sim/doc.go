// Package sim runs a number of masters in one thread, on a simulated network, on
// simulated disks and clocks, through faults that a seed chooses, and checks what
// must hold whatever happens. The masters are the real ones: packages record,
// table, replica, dagsync and antientropy run as they are. What is modelled is the
// history ([disk], which a test holds against the real one), pubsub, streams, and
// what agents and operators do.
//
// A run is a function of its seed alone. `make sim SEED=n RUNS=1` repeats one.
package sim
