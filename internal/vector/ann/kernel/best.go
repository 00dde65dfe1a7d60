package kernel

// Best is the fastest set that this processor runs.
func Best() Set {
	sets := Available()
	return sets[len(sets)-1]
}
