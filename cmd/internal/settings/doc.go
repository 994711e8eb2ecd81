// Package settings gives every value of a program four sources, of which the
// first that has it wins: flag, environment, config file, default.
//
//	cfg := DefaultConfig() // its values are the defaults
//	set := settings.New(cmd.Flags())
//	set.Add(
//		settings.Setting{Name: "data-dir", Env: "EXPLORER_DATA_DIR", Value: &cfg.DataDir, Usage: "where records are kept"},
//		...
//	)
//	set.ConfigFile("EXPLORER_CONFIG")
//	...
//	err := set.Load(os.LookupEnv) // after the flags were parsed
//
// The config file is YAML with the names of the flags as keys. It is strict: a
// key that is not known, given twice or without a value is an error that tells
// the line. --help shows the environment name and the default of every flag.
//
// An environment variable that is set and empty is an empty value where text or
// a list is expected, and as good as not set elsewhere.
//
// Mistakes of the person who started the program, wherever they were made, are a
// [UsageError]; [ExitCode] makes the exit code of an error.
package settings
