// Command computenode is a small compute service on a unix socket, for trying
// out the explorer without hero_compute: its VMs are played in memory, nothing
// is run on the host.
//
//	computenode --state vms.json
//	curl --unix-socket ~/hero/var/sockets/hero_compute/rpc.sock http://x/rpc \
//	  -d '{"jsonrpc":"2.0","id":1,"method":"deploy_vm","params":{"name":"web","cpu":2,"secret":"s3"}}'
//
// Package compute below it is the service itself, to be used in programs and
// tests.
package main
