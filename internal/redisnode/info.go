package redisnode

import "strings"

// ParseInfo parses the reply of INFO, lines of "name:value", into a map.
func ParseInfo(info string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields[name] = value
	}
	return fields
}
