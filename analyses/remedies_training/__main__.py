from analyses.remedies_training.runs import main

main()
