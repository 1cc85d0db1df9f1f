from analyses.mpg_table_1.runs import main

main()
