package mqtt

import "context"

// Reach opens and secures a connection to a broker and closes it again, without
// logging in. Its errors are those of Dial.
func Reach(ctx context.Context, o Options) error {
	o.setDefaults()
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	nc, err := open(ctx, &o)
	if err != nil {
		return err
	}
	return nc.Close()
}
