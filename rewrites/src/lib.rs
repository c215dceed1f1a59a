//! What may be said differently: the e-graph, its rules, facts and cost
