"""Every search beside pruning: does an agent find more than random or TPE with its evaluator?"""
