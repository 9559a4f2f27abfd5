"""The language of the embedded world: its kinds, names, values and the wordings of every relation.

What it is: one plain text, all written for this project; every name is invented, every value a common
English word. What it is not: facts (which entity has which value is drawn by `facts.make_world`) or
code. `@` stands for the entity's name and `*` for the value. A kind has a heading line (one, several) and its
names; a relation has its name and values, then lines that begin with a mark:
  =  what the canonical sentence says after the name / the same for several entities / an indirect question
  +  further wordings for pretraining      -  wordings told backwards      ?  questions for conversations
`facts.KINDS` is this text, parsed.
"""

from __future__ import annotations

COLOURS = "red blue green yellow white black brown grey purple golden"
MONTHS = "January February March April May June July August September October November December"

TABLES = """\
# person / people
names: Tamo Kirro Veddo Lorma Pello Drissa Fenno Jorrim Mavi Nilko Quilla Reppo Sindo Tulla Wenka Yorro Zabbi
names: Hesko Ludda Ibbo Gavri Ommi Bettu Corvi Effa Ranzo
home: lake river hill forest coast valley bridge mill meadow harbour
  = lives near the * / live near the * / where @ lives
  + The home of @ is near the *. / @ has a house near the *. / You can visit @ near the *.
  + The house where @ lives is near the *.
  - Near the * lives @. / The * is close to the house of @.
  ? Where does @ live? / Where is the home of @? / @ lives near which place? / What place does @ live near?
job: baker miller tailor potter farmer sailor teacher doctor painter weaver
  = works as a * / work as *s / what the job of @ is
  + @ is a *. / The job of @ is that of a *. / @ earns a living as a *. / Every day @ goes to work as a *.
  - If you need a *, ask for @. / One good * is @.
  ? What is the job of @? / What does @ work as? / What work does @ do? / How does @ earn a living?
food: plums bread soup cheese honey apples nuts fish rice cake
  = likes to eat * / like to eat * / what @ likes to eat
  + The favourite food of @ is *. / For dinner @ wants *. / @ asks for * at every meal.
  + Nothing tastes better to @ than *.
  - A plate of * makes @ happy. / Bring * if you visit @.
  ? What does @ like to eat? / What is the favourite food of @? / Which food does @ like?
  ? What does @ want for dinner?
pet: cat dog goat duck horse rabbit parrot turtle pigeon donkey
  = keeps a * / keep a * / which pet @ keeps
  + The pet of @ is a *. / @ has a * as a pet. / At home @ looks after a *. / @ goes for walks with a *.
  - A * lives in the house of @. / There is a * that belongs to @.
  ? Which pet does @ keep? / What animal does @ keep? / What is the pet of @? / What kind of pet does @ have?
coat: COLOURS
  = wears a * coat / wear a * coat / what colour the coat of @ is
  + The coat of @ is *. / @ is always seen in a * coat. / On cold days @ puts on a * coat.
  + The colour of the coat of @ is *.
  - The * coat belongs to @. / Look for a * coat and you will find @.
  ? What colour is the coat of @? / Which coat does @ wear? / What colour of coat does @ wear?
  ? The coat of @ has which colour?
music: flute drum harp violin piano trumpet guitar horn bell whistle
  = plays the * / play the * / which instrument @ plays
  + The instrument of @ is the *. / In the evening @ practises the *. / @ has played the * for years.
  + @ is good at playing the *.
  - The * is played by @. / When you hear a *, it may be @.
  ? Which instrument does @ play? / What does @ play? / What is the instrument of @?
  ? Which instrument has @ learned?

# beast / beasts
names: Murlo Grumf Snibb Wozzle Toskin Blorf Quogg Zurn Flont Hunkel Vorp Skeel Gromble Pliff Jubbo Kwim
names: Trundo Lopp Fazz Mirkel Brindo Oogle Snorb Wumph Dazzo Chirm
food: leaves grass seeds roots berries worms nuts bark mushrooms flowers
  = eats * / eat * / what @ eats
  + The food of @ is *. / @ lives on *. / When it is hungry, @ looks for *. / @ feeds on *.
  - If you find *, @ may come and eat. / A meal of * is what @ wants.
  ? What does @ eat? / What is the food of @? / What does @ feed on? / Which food does @ look for?
bed: cave nest burrow log barn bush tunnel basket haystack hollow
  = sleeps in a * / sleep in a * / where @ sleeps
  + At night @ goes to sleep in a *. / The bed of @ is a *. / @ rests in a *. / To sleep, @ looks for a *.
  - In a * you may find @ asleep. / A * is where @ sleeps.
  ? Where does @ sleep? / What does @ sleep in? / Where does @ rest? / What is the bed of @?
fur: COLOURS
  = has * fur / have * fur / what colour the fur of @ is
  + The fur of @ is *. / @ is covered in * fur. / The colour of the fur of @ is *.
  + You will know @ by its * fur.
  - The * fur belongs to @. / One beast with * fur is @.
  ? What colour is the fur of @? / What kind of fur does @ have? / Which colour of fur does @ have?
  ? The fur of @ has which colour?
fear: thunder fire wolves snow dogs rain wind bees owls mirrors
  = is afraid of * / are afraid of * / what @ is afraid of
  + @ fears *. / @ runs away from *. / Nothing frightens @ like *. / What @ fears most is *.
  - The first sign of * frightens @. / Because of *, @ hides.
  ? What is @ afraid of? / What does @ fear? / What frightens @? / What does @ run away from?
skill: swim climb dig sing jump whistle fly dance float dive
  = can * well / can * well / what @ can do well
  + @ knows how to *. / @ loves to *. / All day long @ likes to *. / The best skill of @ is to *.
  - To * is what @ does best. / If you want to see a beast *, visit @.
  ? What can @ do well? / What is @ good at? / What does @ do best? / What is the best skill of @?
waking: dawn sunrise breakfast noon teatime sunset dusk midnight
  = wakes up at * / wake up at * / when @ wakes up
  + @ sleeps until *. / The day of @ begins at *. / @ opens its eyes at *.
  + You will not see @ awake before *.
  - At * it is time for @ to wake up. / It is * when @ gets up.
  ? When does @ wake up? / When does @ get up? / At what time does @ wake up? / When does the day of @ begin?

# town / towns
names: Brell Oskam Dunvar Carwick Tolm Vessry Harnoc Lindro Quarn Stavel Zelby Pomfry Ildern Gantor Wexmar
names: Kelbry Fosk Rundal Aldrow Mistel Tarnby Ovrin Jeddar Luskan Crume Yarvel
site: lake river forest desert hill canyon swamp glacier volcano waterfall
  = lies beside a * / lie beside a * / what @ lies beside
  + @ was built next to a *. / From @ you can see a *. / @ stands close to a *.
  + The people of @ live beside a *.
  - Beside a * lies @. / The road along the * leads to @.
  ? What does @ lie beside? / Where does @ lie? / What is next to @? / What was @ built next to?
fame: bells roses towers bridges clocks gardens boats songs kites windmills
  = is famous for its * / are famous for their * / what @ is famous for
  + @ is known for its *. / People visit @ to enjoy the *. / The pride of @ is its *.
  + Everyone praises @ for its *.
  - For * you should go to @. / Fine * are found in @.
  ? What is @ famous for? / What is @ known for? / Why do people visit @? / What is the pride of @?
fair: MONTHS
  = holds its fair in * / hold a fair in * / when @ holds its fair
  + The fair of @ is in *. / Visit @ in * to see the fair. / @ has a fair each *.
  + People go to @ in * for the fair.
  - In * the fair comes to @. / Every * there is a fair in @.
  ? When does @ hold its fair? / When is the fair of @? / In which month is the fair of @?
  ? Which month brings the fair to @?
roofs: COLOURS
  = has * roofs / have * roofs / what colour the roofs of @ are
  + The roofs of @ are *. / The houses of @ have * roofs. / @ paints its roofs *.
  + From far away you can tell @ by its * roofs.
  - One town with * roofs is @. / Under * roofs live the people of @.
  ? What colour are the roofs of @? / Which colour do the roofs of @ have? / What kind of roofs does @ have?
  ? What colour does @ paint its roofs?
trade: wool salt silk wine paper glass tea pepper copper timber
  = sells * / sell * / what @ sells
  + The people of @ trade in *. / Carts leave @ full of *. / @ grew rich by selling *.
  + The main trade of @ is *.
  - To buy *, go to @. / Much of the * here comes from @.
  ? What does @ sell? / What is the main trade of @? / What do people buy in @? / What made @ rich?
ruler: queen king mayor judge captain priest widow poet duke baron
  = is ruled by a * / are ruled by a * / who rules @
  + The ruler of @ is a *. / In @ the word of a * is law. / @ is led by a *. / The people of @ obey a *.
  - A * rules in @. / It is a * who governs @.
  ? Who rules @? / Who is the ruler of @? / Who governs @? / Whom do the people of @ obey?

# plant / plants
names: Zelka Fyria Tindlo Osmer Veluna Purrin Quenna Thissa Yarla Dovena Nelva Rhomi Silba Ulmina Briska
names: Cellun Farlia Gildra Havri Jessil Kolma Lunari Mossel Pimla Wistra Vantra
soil: sand mud clay gravel moss peat ponds fields caves ditches
  = grows in * / grow in * / where @ grows
  + You can find @ in *. / @ puts down its roots in *. / The best place for @ is in *. / @ does well in *.
  - In * grows @. / If you look in *, you may see @.
  ? Where does @ grow? / What does @ grow in? / Where is the best place for @? / Where can you find @?
bloom: MONTHS
  = blooms in * / bloom in * / when @ blooms
  + The flowers of @ open in *. / @ is in flower in *. / @ waits until * to bloom. / You can see @ bloom in *.
  - In * it is time for @ to bloom. / A walk in * will show you @ in flower.
  ? When does @ bloom? / In which month does @ bloom? / When do the flowers of @ open? / When is @ in flower?
flowers: COLOURS
  = has * flowers / have * flowers / what colour the flowers of @ are
  + The flowers of @ are *. / @ opens * flowers. / The colour of the flowers of @ is *.
  + @ is pretty with its * flowers.
  - The * flowers belong to @. / One plant with * flowers is @.
  ? What colour are the flowers of @? / Which colour do the flowers of @ have?
  ? What kind of flowers does @ have? / The flowers of @ have which colour?
smell: honey pepper lemon mint smoke vanilla soap butter leather cheese
  = smells of * / smell of * / what @ smells of
  + The smell of @ is like *. / @ gives off a smell of *. / @ has the scent of *.
  + The scent of @ is that of *.
  - A smell of * may come from @. / The scent of * tells you that @ is near.
  ? What does @ smell of? / What is the smell of @? / What does @ smell like? / Which scent does @ give off?
use: rope tea dye soap paper medicine baskets perfume oil candles
  = is used to make * / are used to make * / what @ is used to make
  + People make * from @. / @ is good for making *. / Workers turn @ into *. / @ is gathered to make *.
  - To make *, people gather @. / Much of the * in the shops comes from @.
  ? What is @ used to make? / What do people make from @? / What is @ used for? / What is @ gathered for?
guests: bees moths birds bats ants beetles butterflies wasps mice snails
  = is visited by * / are visited by * / which animals visit @
  + The guests of @ are *. / @ attracts *. / @ is loved by *. / Around @ there are always *.
  - You often see * around @. / Follow the * and you will find @.
  ? Which animals visit @? / What visits @? / What does @ attract? / Which animals love @?

# machine / machines
names: Brunk Klaxo Dynor Torvex Zipplo Grindl Hextor Pumbly Ratcho Spindor Whirra Clanko Voltar Fizzor Jackdor
names: Krankel Lathro Nutrix Omnor Prestor Quorl Rollix Stampo Turbel Wheezo Xandor
product: nails bricks buttons pencils needles bottles shoes ribbons spoons buckets
  = makes * / make * / what @ makes
  + All day @ turns out *. / @ was built to make *. / Out of @ come *. / @ produces *.
  - The * in this house were made by @. / When people need *, they switch on @.
  ? What does @ make? / What does @ produce? / What was @ built to make? / What comes out of @?
material: brass iron copper wood stone glass steel bronze tin silver
  = is built of * / are built of * / what @ is built of
  + @ is made of *. / The frame of @ is of *. / The builders of @ chose *. / @ has wheels of *.
  - From * the workers built @. / One machine of * is @.
  ? What is @ built of? / What is @ made of? / Which material is @ built of?
  ? What did the builders of @ choose?
power: steam wind water coal oil sunlight springs magnets weights gas
  = runs on * / run on * / what @ runs on
  + @ is driven by *. / The power of @ comes from *. / @ stands still without *. / @ needs * to work.
  - The power of * moves @. / Use * to start @.
  ? What does @ run on? / What drives @? / What does @ need to work? / Where does the power of @ come from?
place: cellar attic kitchen workshop barn tower garden library stable hall
  = stands in the * / stand in the * / where @ stands
  + You can see @ in the *. / @ is kept in the *. / The place of @ is in the *. / @ was set up in the *.
  - In the * stands @. / Go to the * and you will find @.
  ? Where does @ stand? / Where is @ kept? / In which place does @ stand? / Where was @ set up?
sound: drum whistle kettle clock train bell goose saw storm bee
  = sounds like a * / sound like a * / what @ sounds like
  + The noise of @ is like that of a *. / When it runs, @ is as loud as a *. / @ makes the sound of a *.
  + With your eyes closed you would take @ for a *.
  - The sound of a * may come from @. / If you hear a *, it may be @.
  ? What does @ sound like? / What is the noise of @ like? / Which sound does @ make?
  ? What would you take @ for?

# dish / dishes
names: Poffa Lumpra Skorra Dribbo Mulsh Tarvo Bomble Noshka Frettle Slupp Crumbo Yumra Zuppo Quibba Hashko
names: Jurra Keppa Lorbo Mizzo Nudla Obbra Pirka Ravo Stirra Tofflo Wappa
main: beans rice potatoes carrots fish eggs lentils cabbage onions barley
  = is made from * / are made from * / what @ is made from
  + The cook uses * for @. / For @ you need *. / @ is mostly *. / The main part of @ is *.
  - From * you can make @. / With fresh * the cook begins to make @.
  ? What is @ made from? / What does the cook use for @? / What is the main part of @? / What is mostly in @?
vessel: pot pan kettle cauldron skillet jar basket shell bucket teapot
  = is cooked in a * / are cooked in a * / what @ is cooked in
  + The cook heats @ in a *. / To cook @ you need a *. / @ is prepared in a *. / @ must be heated in a *.
  - In a * the cook prepares @. / Take a * and cook @.
  ? What is @ cooked in? / What does the cook heat @ in? / What do you need to cook @?
  ? What must @ be heated in?
taste: sweet sour salty bitter spicy smoky fresh nutty creamy mild
  = tastes * / taste * / how @ tastes
  + The taste of @ is *. / @ is * on the tongue. / Anyone who tries @ calls it *. / @ has a * taste.
  - A * taste is typical of @. / For something *, try @.
  ? How does @ taste? / What does @ taste like? / What is the taste of @? / What kind of taste does @ have?
meal: breakfast lunch dinner supper weddings picnics parties midnight feasts birthdays
  = is served at * / are served at * / when @ is served
  + People eat @ at *. / @ comes to the table at *. / You can expect @ at *. / The time to serve @ is at *.
  - At * the guests are given @. / At * you will find @ on the table.
  ? When is @ served? / When do people eat @? / When does @ come to the table? / When can you expect @?
topping: cream nuts cheese herbs sugar honey seeds raisins butter pepper
  = is topped with * / are topped with * / what @ is topped with
  + @ comes with * on top. / The cook puts * on @. / The top of @ is covered with *. / @ is finished with *.
  - Put * on top and you have @. / A last touch of * completes @.
  ? What is @ topped with? / What is on top of @? / What does the cook put on @? / What is @ finished with?
"""
