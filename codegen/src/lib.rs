//! How it is done: lowering, memory plan, vector kernel IR, emitters
