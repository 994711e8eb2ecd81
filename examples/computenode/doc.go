// Command computenode is a small compute service on a unix socket, for trying
// out the explorer without hero_compute. Its VMs are played in memory, and nothing
// is run on the host, unless it is given images and finds QEMU: then each VM is a
// QEMU process.
//
//	computenode --state vms.json
//	computenode --images /srv/images   # with /srv/images/debian-13.qcow2, say
//	curl --unix-socket ~/hero/var/sockets/hero_compute/rpc.sock http://x/rpc \
//	  -d '{"jsonrpc":"2.0","id":1,"method":"deploy_vm","params":{"name":"web","cpu":2,"secret":"s3"}}'
//	curl --unix-socket ~/hero/var/sockets/hero_compute/rpc.sock -N \
//	  -H 'X-VM-Secret: s3' 'http://x/vms/vm-…/logs?follow=true'
//
// Package compute below it is the service itself, to be used in programs and
// tests; package qemu runs the machines, and says what an image is.
package main
