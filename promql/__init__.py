"""PromQL: grammar, typed tree, planner, operators, functions, annotations."""
