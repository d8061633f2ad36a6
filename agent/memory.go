package agent

// tellMemory notes what the first process of an image says of the data partition.
func (a *Agent) tellMemory() {
	if a.opts.Getenv != nil && a.opts.Getenv("GRIDGATE_DATA_IN_MEMORY") != "" {
		a.note("data: the data partition cannot be used, and readings are kept in memory only: they do not survive a restart; replace the card or the eMMC")
	}
}
