package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// telegrafConfigs writes two configs for Telegraf and returns what a command line says for them and their paths:
// {telegraf} buffers in memory, {telegraf-disk} on disk.
func telegrafConfigs(dir string, o options, devices []string, broker string) (names []string, err error) {
	for name, buffer := range map[string]string{
		"telegraf":      "",
		"telegraf-disk": fmt.Sprintf("  buffer_strategy = \"disk\"\n  buffer_directory = %q\n", filepath.Join(dir, "data")),
	} {
		path := filepath.Join(dir, name+".conf")
		if err := os.WriteFile(path, telegrafConfig(o, devices, broker, buffer), 0o644); err != nil {
			return nil, err
		}
		names = append(names, "{"+name+"}", path)
	}
	return names, nil
}

// telegrafConfig is the form that costs Telegraf least: one metric and one message a device and poll, requests as
// large as Modbus allows. Names of fields are numbers of one width, because it sends fields in the order of names.
func telegrafConfig(o options, devices []string, broker, buffer string) []byte {
	b := fmt.Appendf(nil, `[agent]
  interval = %q
  round_interval = false
  flush_interval = %q
  metric_batch_size = 1000
  metric_buffer_limit = 1000000
  omit_hostname = true
  quiet = true
  skip_processors_after_aggregators = true
%s[[outputs.mqtt]]
  servers = ["tcp://%s"]
  topic = 'bench/{{ .Tag "device" }}/g'
  client_id = "bench"
  qos = 1
  data_format = "json"
`, o.Interval, o.Interval, buffer, broker)
	kind, words := "UINT16", 1
	if o.Kind == "float32" {
		kind, words = "FLOAT32", 2
	}
	for i, address := range devices {
		b = fmt.Appendf(b, `[[inputs.modbus]]
  name = "d%d"
  controller = "tcp://%s"
  timeout = "2s"
  configuration_type = "metric"
  optimization = "max_insert"
  tagexclude = ["host", "name", "slave_id", "type"]
  [[inputs.modbus.metric]]
    slave_id = 1
    fields = [
`, i, address)
		for j := range o.Tags {
			b = fmt.Appendf(b, "      {register=\"holding\", address=%d, name=\"t%05d\", type=%q},\n", j*words, j, kind)
		}
		b = fmt.Appendf(b, "    ]\n    [inputs.modbus.metric.tags]\n      device = \"d%d\"\n", i)
	}
	return b
}
