from analyses.measured_weights.runs import main

main()
