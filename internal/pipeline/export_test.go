package pipeline

// LoopIR is for the tests of the engine.
func LoopIR(limit int) []byte { return loopIR(limit) }
