"""What a step costs: one module a question, one shared timer, results with the machine's description."""
