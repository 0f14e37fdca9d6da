"""TPMs on the line: the commands, the wires that lead to them, and the steps from bare chip to sealed one."""
