"""Planning in a model: by gradients or by sampling, and how far ahead, judged in the simulator."""
