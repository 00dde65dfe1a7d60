package box

// Cgroup is where a program's resources are limited and counted. The zero Cgroup
// limits nothing.
type Cgroup struct {
	V2     string   // directory of the unified hierarchy
	V1     []string // directories, one a controller; the program's first thread is written to tasks
	Memory string   // file whose oom_kill line counts
	// Weighed says that it has a tenth of the processor (Ask.Low).
	Weighed bool
}

// Ask is what a container may use; zero is no limit.
type Ask struct {
	Cores     float64
	Memory    int64 // bytes
	Processes int
	Low       bool // a tenth of the processor that others get who want it
}
