package dlms

import (
	"context"

	"gridgate/dlms/axdr"
)

type names struct{}

func (c *Client) readByName(context.Context, Attribute, selection) (axdr.Value, error) {
	return axdr.Value{}, ErrNotGranted
}

func (c *Client) readNamesOf(context.Context, []Attribute) ([]Item, error) {
	return nil, ErrNotGranted
}

func (c *Client) setByName(context.Context, Attribute, axdr.Value) error { return ErrNotGranted }

func (c *Client) actByName(context.Context, Attribute, *axdr.Value) (axdr.Value, error) {
	return axdr.Value{}, ErrNotGranted
}
