package config

import "time"

// Bounds of what a config may ask for.
const (
	maxGraceTime = 10 * time.Minute // a stop that takes longer is a hang to whoever waits for it

	maxProcessors = 1024 // more than any edge box has

	minBufferSize     = 4 << 20  // the least that package buffer works in
	maxBufferSize     = 16 << 40 // beyond any disk of an edge box; keeps sums of sizes far from overflow
	minBufferAge      = time.Minute
	maxBufferAge      = 10 * 365 * 24 * time.Hour
	minCommitInterval = 10 * time.Millisecond // a faster tick than an fsync on flash takes is strict mode by another name
	maxCommitInterval = time.Minute           // a longer window is data loss by config
	minMemory         = 64 << 10              // one large record
	maxMemory         = 1 << 30

	maxDestinations = 16 // cursors that the buffer keeps
	maxWindow       = 4096
	minInFlight     = 64 << 10
	minMessage      = 1 << 10   // a message of a few tags
	maxMessage      = 256 << 20 // MQTT 3.1.1 section 2.2.3
	maxInFlight     = 256 << 20 // the largest MQTT packet
	maxMessageRate  = 1e6
	minByteRate     = 1 << 10
	maxByteRate     = 1 << 40
	minKeepAlive    = 5 * time.Second
	maxKeepAlive    = 18 * time.Hour // MQTT counts it in 16 bits of seconds
	maxClientID     = 1024           // bytes; brokers stop far below the protocol's 65535
	maxTopic        = 65535          // bytes, MQTT 3.1.1 section 1.5.3
	maxCredential   = 65535          // bytes, the same section

	minAckTimeout = time.Second // less is within the round trip of a satellite link and its queue
	maxAckTimeout = 10 * time.Minute
	minRetry      = 100 * time.Millisecond // faster is a flood to a device that refuses
	maxRetry      = time.Hour

	minTimeout   = 10 * time.Millisecond
	maxTimeout   = 5 * time.Minute
	minInterval  = 10 * time.Millisecond
	maxInterval  = 24 * time.Hour
	maxHeartbeat = 7 * 24 * time.Hour

	maxName      = 255     // bytes of a name: file-name length, and room for three of them in a topic
	maxTags      = 500_000 // tags in one config: ten times the largest plant measured
	maxLabels    = 64      // labels of one device or tag, as in the stored schema of package record
	maxGroupTags = 1 << 17 // tags in one group, likewise
	maxText      = 4096    // bytes of any other text, as in the stored schema of package telemetry
	maxNodes     = 1 << 20 // YAML nodes held at a time, see parse
	maxNesting   = 64      // brackets within brackets; our deepest key has 8
	maxVisit     = 1 << 24 // YAML nodes read in one load: aliases can repeat a subtree without end

	maxFile   = 32 << 20  // bytes of one file: about 250,000 tags
	maxRun    = 512 << 10 // bytes of one text as it is written: the longest that is taken, 64 KiB, with each character as \u0000
	maxTotal  = 64 << 20  // bytes of all files
	maxFiles  = 4096      // included files
	maxDepth  = 8         // includes within includes
	maxExpand = 64 << 10  // bytes of one ${file:...}
)
