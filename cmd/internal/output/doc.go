// Package output prints what commands have to say: it notices when nobody takes it, and
// puts it into columns that stand below each other whatever the script.
package output
