package line

import "context"

// OpenMedium opens the medium of l for a caller that drives it himself: for one
// that carries several conversations at a time. l has no part in it.
func OpenMedium(ctx context.Context, l *Line) (Medium, error) { return l.open(ctx, Settings{}) }
