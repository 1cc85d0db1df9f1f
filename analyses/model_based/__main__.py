from analyses.model_based.runs import main

main()
