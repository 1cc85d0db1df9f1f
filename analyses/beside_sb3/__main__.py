from analyses.beside_sb3.runs import main

main()
