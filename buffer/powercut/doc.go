// Package powercut proves, by cutting the power, what package buffer promises of it. It holds tests only:
// a disk that records every write and flush (a FUSE file under a loop device, ext4 on it), a workload on
// a real store, and a replay that builds the disks a power cut could have left and opens the store on each.
// README.md says how it works, what was measured and what it cannot show.
package powercut
