//go:build race

package crdtstoretest_test

func init() { slow, *seeds = true, 1 }
