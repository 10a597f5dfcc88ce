package httpkit

// pending returns false, because Windows does not report whether an accept queue holds a connection.
func pending(queue) bool { return false }
