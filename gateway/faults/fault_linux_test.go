package faults

import "testing"

// TestFault is the fault bed: the scenarios of FAULTS.md that concern the whole program, each by its
// number, each judged by the ledger checker. `go test ./gateway/faults -run TestFault/F15` runs one,
// `-long` its long form. TestControl holds the negative controls.
func TestFault(t *testing.T) {
	t.Parallel()
	for _, s := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"F1_kill9", faultKill},
		{"F1_store_set_back", faultStoreSetBack},
		{"F8_disk_full", faultDiskFull},
		{"F8_hung_disk", faultHungDisk},
		{"F9_bad_directory", faultBadDirectory},
		{"F10_damaged_store", faultDamagedStore},
		{"F10_spoiled_store", faultSpoiledStore},
		{"F11_black_hole_live_first", func(t *testing.T) { faultBlackHole(t, "live-first") }},
		{"F11_black_hole_oldest_first", func(t *testing.T) { faultBlackHole(t, "oldest-first") }},
		{"F12_half_open", faultHalfOpen},
		{"F13_flapping", faultFlapping},
		{"F14_thin_link", faultThinLink},
		{"F15_broker_down", faultBrokerDown},
		{"F15_broker_refuses", faultBrokerRefuses},
		{"F16_hostile_broker", faultHostileBroker},
		{"F17_poison", faultPoison},
		{"F17_poison_device", faultPoisonDevice},
		{"F18_certificates", faultTLS},
		{"F20_dead_and_slow", faultDeadAndSlow},
		{"F22_subscriptions", faultSubscriptions},
		{"F23_hostile_servers", faultHostileServers},
		{"F23_hostile_subscriptions", faultHostileSubscriptions},
		{"F23_hostile_peers", faultHostilePeers},
		{"F24_clock", faultClock},
		{"F25_memory_and_backlog", faultBacklogMemory},
		{"F26_few_descriptors", faultFewDescriptors},
		{"F26_crowded_page", faultCrowdedPage},
		{"F26_soak", faultSoak},
		{"F27_reload", faultReload},
		{"F27_newer_store", faultNewerStore},
		{"F28_two_on_one_directory", faultTwoGateways},
		{"F28_one_client_id_twice", faultClientIDTwice},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t)
		})
	}
}
