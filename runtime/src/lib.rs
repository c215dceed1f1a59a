//! What a compiled model needs while it runs
