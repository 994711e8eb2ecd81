// Package table holds the merged records in memory: the join of every state
// that this master has ever seen, one [Entry] per node, with the digest that
// stands for all of them and how many bytes they take. Readers get immutable entries and never wait for
// writers longer than a map access takes; nothing here touches the disk.
package table
