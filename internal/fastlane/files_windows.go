package fastlane

// fileLimit returns maxFiles, because Windows has no limit of open sockets per process.
func fileLimit() int { return maxFiles }
