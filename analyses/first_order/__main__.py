from analyses.first_order.runs import main

main()
