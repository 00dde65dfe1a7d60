package ann

func (s *Segment) bindGraph(b *binder) { b.fail(secGraph) }
