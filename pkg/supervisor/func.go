package supervisor

import "context"

// Func makes a component of plain functions, for parts too small for a type of their own.
type Func struct {
	// ID is the component's name.
	ID string
	// Do is the component's Run.
	Do func(ctx context.Context) error
	// Check is the component's Ready; nil means always ready.
	Check func(ctx context.Context) error
}

// Name returns ID.
func (f Func) Name() string { return f.ID }

// Run calls Do.
func (f Func) Run(ctx context.Context) error { return f.Do(ctx) }

// Ready calls Check.
func (f Func) Ready(ctx context.Context) error {
	if f.Check == nil {
		return nil
	}
	return f.Check(ctx)
}
